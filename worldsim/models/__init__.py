"""The networks: the spacetime VAE and the video diffusion transformer."""
