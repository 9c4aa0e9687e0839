"""Runs on Ray: connecting, actors, and the driver that hands pieces to them."""
