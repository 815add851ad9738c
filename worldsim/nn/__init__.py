"""Building blocks of the networks: attention, layers, rotary positions."""
