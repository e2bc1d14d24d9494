{{- define "avalanche.labels" -}}
app.kubernetes.io/name: avalanche-backup
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: control-plane
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}
{{- define "avalanche.selector" -}}
app.kubernetes.io/name: avalanche-backup
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: control-plane
{{- end }}
{{- define "avalanche.name" -}}
{{ printf "%s-operator" (.Release.Name | trunc 50) }}
{{- end }}
{{/* What the operator may do in a namespace: no verb on Secrets, and none to run commands in pods. */}}
{{- define "avalanche.rules" -}}
- apiGroups: [avalanche.io]
  resources: [backupstorages, backuppolicies, restorerequests]
  verbs: [get, list, watch]
- apiGroups: [avalanche.io]
  resources: [backups]
  verbs: [get, list, watch, create, delete] # delete: of failed runs that are too many, of what retention removed
- apiGroups: [avalanche.io]
  resources: [backupstorages/status, backuppolicies/status, backups/status, restorerequests/status]
  verbs: [patch]
- apiGroups: [batch]
  resources: [cronjobs]
  verbs: [get, list, watch, create, patch, delete] # delete: of a policy's cleanup, when its retention is taken away
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
{{- end }}
