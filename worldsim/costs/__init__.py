"""What training, stepping and serving cost."""
