"""What holds weights back: penalties, limits, augmentation, averages."""
