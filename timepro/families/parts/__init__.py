"""What several families are built from; their files import it inside methods, since it needs torch."""
