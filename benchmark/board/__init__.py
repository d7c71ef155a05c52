"""The leaderboard: ranking, tables, comparison of models, the static page."""
