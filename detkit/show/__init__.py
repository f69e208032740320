"""What a person looks at: samples as the network sees them, matched anchors, suspected label errors."""
