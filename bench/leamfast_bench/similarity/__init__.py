"""How fast maps are compared: EMD and Bhattacharyya coefficient, beside POT and geomloss."""
