"""A guided search: data and a time in; a predictor, one network and answers out. docs/search.md."""
