"""How fast maps are made: our backends beside the best loop by hand and other packages, in one run."""
