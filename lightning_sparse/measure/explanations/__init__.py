"""Saliency maps and what they are worth."""
