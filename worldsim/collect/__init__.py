"""Recording episodes of Gymnasium environments."""
