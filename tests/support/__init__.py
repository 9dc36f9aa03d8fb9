"""What several tests share; on pytest's path as the package `support`."""
