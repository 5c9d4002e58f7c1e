"""Helpers that several test modules share; conftest.py holds the shared fixtures."""
