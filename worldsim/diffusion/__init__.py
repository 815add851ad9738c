"""Diffusion without a network: noise, the denoising loss, samplers, consistency distillation."""
