"""A run and its folder, from configuration to result.json."""
