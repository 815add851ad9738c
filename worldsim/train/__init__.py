"""One training loop and the three things it trains: VAE, dynamics, student."""
