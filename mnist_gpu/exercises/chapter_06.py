"""Checks of chapter 06's exercises."""
