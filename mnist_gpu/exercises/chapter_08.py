"""Checks of chapter 08's exercises."""
