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
