"""Premises and conclusions of Theorem 3, measured on a model edit by edit."""
