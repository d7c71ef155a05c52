"""What is measured on the programs that a model wrote itself: the paper's semantic content, and how far it plans ahead."""
