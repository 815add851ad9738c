"""Actions that nobody recorded: inferred from video, learned from, mapped to real ones."""
