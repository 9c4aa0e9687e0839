"""How fast images are occluded: the pass of the engine beside a straightforward loop."""
