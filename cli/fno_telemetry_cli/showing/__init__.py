"""What is printed: tables, trees and lines for the terminal, documents for `--json`."""
