"""Checks of chapter 04's exercises."""
