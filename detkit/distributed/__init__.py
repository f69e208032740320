"""Training in several processes: ranks, rendezvous, launchers, failures."""
