# Agents as guests of Nomad: nomad job run sample-config/nomad/lcq-agent.nomad.hcl
# The variable nomad/jobs/lcq-agent holds what is secret: storage_token, and operator_key, by which each node is invited.

variable "scheduler" {
  type    = string
  default = "lcq-scheduler.service.consul:5571"
}

job "lcq-agent" {
  datacenters = ["*"]
  type        = "service"

  group "gpu" {
    count = 4

    # The allocation that takes another's place waits for its end and gets its folder: with the same name it is the same
    # node, and delivers what that could not.
    ephemeral_disk {
      size    = 20000
      sticky  = true
      migrate = true
    }

    restart {
      attempts = 10
      interval = "10m"
      delay    = "15s"
      mode     = "delay"
    }

    volume "pictures" {
      type      = "host"
      source    = "pictures"
      read_only = false
    }

    # It alone has the operator's key: it invites this allocation's node, which makes a key of its own in the shared folder.
    task "key" {
      driver = "docker"

      lifecycle {
        hook = "prestart"
      }

      config {
        image      = "registry.example/lcq-agent:0.1.0"
        entrypoint = ["bash", "-euo", "pipefail", "-c"]
        args = [
          "LCQ_ZEROMQ__KEY_FILE=$NOMAD_SECRETS_DIR/client.json lcq --scheduler ${var.scheduler} keys invite --role agent --node $LCQ_AGENT__NAME | lcq-agent join --replace -"
        ]
      }

      env {
        LCQ_AGENT__NAME = "nomad-${NOMAD_ALLOC_INDEX}"
        LCQ_DATA_DIR    = "${NOMAD_ALLOC_DIR}/data/lcq"
      }

      template {
        destination = "${NOMAD_SECRETS_DIR}/client.json"
        perms       = "0400"
        uid         = 10001
        gid         = 10001
        data        = "{{ with nomadVar \"nomad/jobs/lcq-agent\" }}{{ .operator_key }}{{ end }}"
      }

      resources {
        cpu    = 200
        memory = 256
      }
    }

    task "agent" {
      driver = "docker"

      # SIGTERM: take nothing new, let what runs go on for agent.drain_s seconds, hand the rest back at no cost to it.
      # A client's max_kill_timeout, 30s by default, must allow for it.
      kill_signal  = "SIGTERM"
      kill_timeout = "90s"

      config {
        image = "registry.example/lcq-agent:0.1.0"
        args  = ["--scheduler", "${var.scheduler}"] # of lcq-agent
      }

      volume_mount {
        volume      = "pictures"
        destination = "/pictures"
      }

      env {
        LCQ_AGENT__NAME    = "nomad-${NOMAD_ALLOC_INDEX}"
        LCQ_AGENT__LABELS  = "{\"nomad-node\": \"${node.unique.name}\"}"
        LCQ_AGENT__DRAIN_S = "60"
        LCQ_AGENT__DEVICES = "{\"cpu\": {\"enabled\": false}}"
        LCQ_STORAGE__ROOTS = "[\"/pictures\"]"
        LCQ_DATA_DIR       = "${NOMAD_ALLOC_DIR}/data/lcq"
      }

      template {
        destination = "${NOMAD_SECRETS_DIR}/lcq.env"
        env         = true
        change_mode = "restart"
        data        = <<-ENV
          {{ with nomadVar "nomad/jobs/lcq-agent" }}
          LCQ_STORAGE__TOKEN={{ .storage_token | toJSON }}
          {{ end }}
        ENV
      }

      resources {
        cores  = 2
        memory = 8192

        device "nvidia/gpu" {
          count = 1
        }
      }
    }
  }
}
