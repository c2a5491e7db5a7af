variable "name" {
  type        = string
  description = "Name of the repository."

  validation {
    condition     = can(regex("^[a-z](-?[a-z0-9])*(/[a-z](-?[a-z0-9])*)*$", var.name)) && length(var.name) >= 3 && length(var.name) <= 256
    error_message = "name is \"${var.name}\": use 3 to 256 lower-case letters, digits and single hyphens, a letter first; a slash ends a namespace."
  }
}

variable "candidates_kept" {
  type        = number
  description = "Images kept that were pushed but never released."
  default     = 20

  validation {
    condition     = var.candidates_kept >= 1 && var.candidates_kept <= 1000 && floor(var.candidates_kept) == var.candidates_kept
    error_message = "candidates_kept is ${var.candidates_kept}: use a whole number from 1 to 1000."
  }
}

variable "release_tag_prefix" {
  type        = string
  description = "Tags with this prefix mark released images, which are never expired: an environment may run them."
  default     = "v"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,31}$", var.release_tag_prefix))
    error_message = "release_tag_prefix is \"${var.release_tag_prefix}\": use up to 32 lower-case letters, digits and hyphens, a letter first."
  }
}

variable "delete_contents" {
  type        = bool
  description = "Whether destroying the repository may delete the images in it."
  default     = false
}
