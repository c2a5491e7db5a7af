variable "bucket" {
  type        = string
  description = "Name of the bucket; unique in the whole of AWS."

  validation {
    condition     = can(regex("^[a-z0-9](-?[a-z0-9])*$", var.bucket)) && length(var.bucket) >= 3 && length(var.bucket) <= 63
    error_message = "bucket is \"${var.bucket}\": use 3 to 63 lower-case letters, digits and single hyphens."
  }
}

variable "noncurrent_days" {
  type        = number
  description = "Days that overwritten and deleted objects can still be restored."
  default     = 90

  validation {
    condition     = var.noncurrent_days >= 1 && floor(var.noncurrent_days) == var.noncurrent_days
    error_message = "noncurrent_days is ${var.noncurrent_days}: use a whole number of days, 1 or more."
  }
}

variable "delete_contents" {
  type        = bool
  description = "Whether destroying the bucket may delete the objects in it."
  default     = false
}
