"""A finished run is used."""
