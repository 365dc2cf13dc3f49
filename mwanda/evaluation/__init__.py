"""Evaluation: perplexity and task scores per language, and their aggregates over languages."""
