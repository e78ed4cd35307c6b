"""What HiSo's learned H learns: subjects whose curvature is known, the stage, along training, and what the oracle would buy."""
