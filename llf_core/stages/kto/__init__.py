"""Kahneman-Tversky optimization (KTO)."""
