"""Training in several processes: where a process stands, how they meet, who starts them, what went wrong."""
