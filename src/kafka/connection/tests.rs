//! Against a listener that answers as each test wants.
