"""Declarations of the engines that chat, serve and predict."""
