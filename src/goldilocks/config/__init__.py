"""From overrides and YAML to checked values and objects."""
