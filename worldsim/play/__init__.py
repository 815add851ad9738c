"""Films and demonstrations for people."""
