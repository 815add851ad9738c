"""What is known of single environments: settings of their recordings, drivers, landmarks."""
