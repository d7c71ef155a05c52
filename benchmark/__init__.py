"""The benchmark: suites, models, scoring, probing, records, leaderboard, the Ray layer, the command line."""
