"""How the compact encoder in the box is made: compression in closed form, training, and the score that judges it."""
