{{/* The name of every object: the release's, with the chart's unless the release has it in its own. */}}
{{- define "clerk-watcher.fullname" -}}
{{- ternary .Release.Name (printf "%s-clerk-watcher" .Release.Name) (contains "clerk-watcher" .Release.Name) | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{- define "clerk-watcher.selectorLabels" -}}
app.kubernetes.io/name: clerk-watcher
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "clerk-watcher.labels" -}}
{{ include "clerk-watcher.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}
