"""The same epidemic by several hands: gnabm against what one would write instead."""
