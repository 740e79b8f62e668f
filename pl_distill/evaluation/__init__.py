"""Replays clips, scores the tracks, and reports."""
