"""Which trials there are: settings, space, study."""
