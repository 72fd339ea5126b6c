# A controller brought up by Terraform: copies the hoist binary and a rendered asset directory to a machine that has a
# kubelet and a container runtime, and runs hoist.service there. See docs/first-boot.md.

terraform {
  required_version = ">= 1.4" # terraform_data
}

locals {
  # What Terraform keeps in its state: one checksum. The files go from disk to disk, and no key is ever in the state.
  assets = sha256(join("\n", [
    for file in sort(fileset(var.asset_dir, "**")) : "${file} ${filesha256("${var.asset_dir}/${file}")}"
  ]))
}

resource "terraform_data" "controller" {
  # Whatever changes in the asset directory or the binary is brought to the controller by the next apply.
  triggers_replace = [local.assets, filesha256(var.hoist), var.address]

  connection {
    host        = var.address
    user        = "root"
    private_key = file(var.private_key_file)
    host_key    = var.host_key
  }

  # Copies arrive readable for everybody, so the folder around them is closed first. What an earlier apply left
  # half-copied goes.
  provisioner "remote-exec" {
    inline = ["install -d -m 700 /etc/hoist && rm -rf /etc/hoist/new && mkdir -p /etc/hoist/new/assets"]
  }

  provisioner "file" {
    source      = var.hoist
    destination = "/etc/hoist/new/hoist"
  }

  provisioner "file" {
    source      = "${var.asset_dir}/" # a slash at its end: what is in the folder, whatever it is called
    destination = "/etc/hoist/new/assets"
  }

  provisioner "remote-exec" {
    script = "${path.module}/bring-up.sh"
  }
}

output "kubeconfig" {
  description = "The admin's kubeconfig, on this machine."
  value       = abspath("${var.asset_dir}/auth/kubeconfig")
}
