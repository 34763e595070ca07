"""Commands about a single network: inspect, export, predict, profile, find-lr, dry run, convert."""
