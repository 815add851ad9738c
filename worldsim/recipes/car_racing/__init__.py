"""CarRacing-v3: settings, drivers, and what can be recognised in its frames."""
