"""Detection, alignment and the 19 face regions."""
