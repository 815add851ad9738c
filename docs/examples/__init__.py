"""Short scripts: other libraries' learners in a dream."""
