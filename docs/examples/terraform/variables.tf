variable "address" {
  description = "The controller's address, as cluster.yaml has it. root must be let in by SSH."
  type        = string
}

variable "private_key_file" {
  description = "The SSH key that lets root in."
  type        = string
}

variable "host_key" {
  description = "The controller's public SSH host key, its ECDSA one if it has several. Without it, whoever answers at the address is believed."
  type        = string
  default     = null
}

variable "asset_dir" {
  description = "The folder that `hoist render` wrote."
  type        = string
  default     = "assets"

  validation {
    condition     = fileexists("${var.asset_dir}/cluster.yaml")
    error_message = "There is no asset directory: hoist render --config cluster.yaml --asset-dir assets"
  }
}

variable "hoist" {
  description = "The hoist binary, static."
  type        = string
}
