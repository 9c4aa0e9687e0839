"""How fast photos become maps: decoding, detection, alignment, their caches, and the shares of regions."""
